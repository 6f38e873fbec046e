"""What several methods share: posteriors, training, latent grids and optimisers."""
