"""What a trained model does well and badly: scores and their significance."""
