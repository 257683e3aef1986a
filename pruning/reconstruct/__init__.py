"""Layer-wise reconstruction: responses, kernels, least squares."""
