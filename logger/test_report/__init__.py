"""The report of test.py: tables, confusion matrix and worst cases."""
