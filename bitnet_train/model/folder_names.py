"""Names of the files of a merged model, for whoever looks at a folder without opening it."""

RECORD_FILE = "conversion.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
