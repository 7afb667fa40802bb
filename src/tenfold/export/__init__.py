"""What a run leaves behind: adapters, full models, merged models, and the hash of the base they belong to."""
