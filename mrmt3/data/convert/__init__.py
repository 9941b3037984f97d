"""Data sets in the folders they were published in, and their conversion to records in MT3's layouts; see `convert`."""
