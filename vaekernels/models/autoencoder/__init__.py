"""The autoencoders of latent diffusion, and their tiny versions."""
