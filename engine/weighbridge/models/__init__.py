"""What needs a running model: its gradients, activations and training."""
