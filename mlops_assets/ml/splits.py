"""The rule that divides labelled rows by time into training, hold-out and what is earlier than the training window."""

SPLIT_SQL = """case
  when {prediction_time} < {window_start} and {label_time} < {holdout_start} then 'earlier'
  when {prediction_time} < {holdout_start} and {label_time} < {holdout_start} then 'train'
  when {prediction_time} >= {holdout_start} and {prediction_time} < {cutoff} and {label_time} < {cutoff} then 'holdout'
  else 'excluded'
end"""
"""The split of a row as a SQL expression: fill in two column names and three timestamp literals with `str.format`.

- earlier: predicted before `window_start`. It is fitted on like a row of training; checks and references are of the window.
- train: predicted and *labelled* before `holdout_start`. A model trained at that moment could not have known a label that arrived
  later, so rows whose label is still open then are excluded (the embargo), not trained on.
- holdout: predicted from `holdout_start` to before `cutoff`, and labelled before `cutoff`.
- excluded: everything else, rows with a null time included.
"""
