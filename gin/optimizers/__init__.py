"""gin files; the folder is a package so that they are installed with mrmt3."""
