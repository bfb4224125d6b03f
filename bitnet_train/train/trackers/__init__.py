"""Where figures go, with secrets taken out."""
