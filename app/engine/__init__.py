"""The process that runs models for `/detect`; the only part of the service's front that loads torch."""

import os

# Read when torch is loaded: threads that spin while they wait would take the cores from a training beside.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
