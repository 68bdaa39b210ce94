"""What a fit costs: processor seconds of a fixed run, beside a fixed piece of other work, with a history."""
