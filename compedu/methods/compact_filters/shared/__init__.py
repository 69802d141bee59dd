"""What the methods of compact filters share: pairs of opposite filters."""
