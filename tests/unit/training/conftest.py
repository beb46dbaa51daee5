import os

# Before anything imports scikit-learn: threads that wait for each other on a busy machine cost seconds and gain nothing.
os.environ.setdefault("OMP_NUM_THREADS", "1")
