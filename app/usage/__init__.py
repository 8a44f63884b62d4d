"""Room: what everything takes, what it may take, and how long it is kept."""
