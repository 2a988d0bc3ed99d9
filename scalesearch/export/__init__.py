"""Folders from which a trial is rebuilt, run or shipped."""
