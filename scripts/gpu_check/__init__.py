"""What a GPU has to prove of training, in one command and one result file: `python -m scripts.gpu_check`.

__main__     the command: stages one after the other, each kept as it is done
agreement    the GPU against the CPU: codes, scales, integer products, losses, and a resume that is bitwise
speed        a training step beside nn.Linear and the usual spelling: time, memory, tokens a second, utilisation
training     a recipe for the time that is left: its curve, its perplexity beside the original's, its size
"""
