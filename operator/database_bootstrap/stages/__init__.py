"""The work: one file per thing that converges; each observes, compares and acts."""
