{ numbers = [ 2 ]; }
