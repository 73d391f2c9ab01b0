"""The two images that run in the cloud, and a look at what is in them without building them."""
