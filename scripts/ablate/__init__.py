"""What each lever buys: grids of short trainings, and the tables of what they gave."""
