"""Parts that every stage of a solution is built with: its inputs, the steps of a run, their errors, the clock of the data.

All stages import it.
"""
