"""Sound: files and blocks of samples, log-mel and MFCC features, and how to vary recordings while training."""
