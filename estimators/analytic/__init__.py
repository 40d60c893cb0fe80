"""The closed form: weights, gradients, optimizer states, activations and temporaries, moment by moment."""
