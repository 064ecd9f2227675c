"""The autoencoders of latent diffusion and of TAESD."""
