"""Builds data sets in Slakh2100's layout from real scores: sources -> arrange, drums -> render -> layout."""
