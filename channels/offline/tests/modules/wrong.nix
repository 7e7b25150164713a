{ numbers = "not a list"; }
