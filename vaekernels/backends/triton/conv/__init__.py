"""The five convolutions and their gradients as one engine: the tap-GEMM.

| file | its job |
|---|---|
| ``forms.py`` | what a convolution, or the adjoint of one, reads: windows of samples, taps |
| ``padded.py`` | images between borders of zeros, in which every tap is a constant shift of rows |
| ``filters.py`` | weights as the matrix that the product takes, and back |
| ``tf32.py`` | rounding to it, where images and filters are written |
| ``kernel.py`` | the product: ``acc += x[row + shift(tap)] @ w[tap]``, its epilogue |
| ``gradient_kernel.py`` | the filters' gradient, the same with rows as depth |
| ``table.py``, ``table.json`` | what was measured: which way, in which tile |
| ``choice.py`` | which way: the table, or a rule where it is silent |
| ``configs.py`` | tiles by shape, where nothing was measured |
| ``library.py`` | the other way: PyTorch's convolution, cuDNN |
| ``finish.py`` | its epilogue as a pass, behind the library |
| ``launch.py`` | tensors to kernels |
| ``call.py`` | forward and backward of a call, as each op has them |
| ``statistics.py`` | those of a result, merged for the next normalisation |
| ``chain.py`` | a convolution in a chain, which takes and hands on statistics |
| ``calls.py`` | the ops by name; ``vk.explain`` |
| ``plain.py`` | the ops that are nothing but a convolution, a bias and an activation |
| ``configurations.py`` | what the ahead-of-time gate compiles |
"""
