"""What every exported infer.py has in common: `infer_script` puts these files and the task's own into one.

They import nothing of scalesearch but one another, and run with Python 3.8.
"""
