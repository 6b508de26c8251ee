"""What a configuration builds: data, network, posterior, learner, and the simpler models that it is held against."""
