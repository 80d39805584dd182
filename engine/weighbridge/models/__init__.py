"""What needs a running model: how the weights act when the network runs."""
