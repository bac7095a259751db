"""The command line: one thin file per verb. torch is imported when a verb runs, not before."""
