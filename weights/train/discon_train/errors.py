class TrainError(Exception):
    """A mistake in what was asked or given; printed as one line, without a trace."""
