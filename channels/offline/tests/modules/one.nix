{ numbers = [ 1 ]; }
