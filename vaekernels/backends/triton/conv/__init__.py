"""The convolutions and their gradients as one engine: the tap-GEMM.

| file | contents |
|---|---|
| ``forms.py`` | what a convolution, or the adjoint of one, reads: windows of samples, taps |
| ``padded_images.py`` | images with zero borders, in which every tap is a constant shift of rows |
| ``filters.py`` | weights as the matrix that the product takes, and back |
| ``tf32.py`` | rounding to tf32, where images and filters are written |
| ``tap_gemm.py`` | the product: ``acc += x[row + shift(tap)] @ w[tap]``, with its epilogue |
| ``filter_gradient.py`` | gradient of the filters: the same product with rows as depth |
| ``autotune_table.py``, ``.json`` | measured algorithms and tiles |
| ``dispatch.py`` | selects the algorithm: from the table, else by a rule |
| ``tile_heuristics.py`` | tiles by shape, where nothing was measured |
| ``cudnn.py`` | the other algorithm: PyTorch's convolution |
| ``epilogue.py`` | the epilogue as a separate pass, after cuDNN |
| ``launch.py`` | kernel launches |
| ``forward_backward.py`` | forward and backward of a call |
| ``statistics.py`` | statistics of a result, merged for the next normalisation |
| ``chained.py`` | a convolution in a chain, which takes and returns statistics |
| ``op_calls.py`` | the ops by name; ``vk.explain`` |
| ``unfused.py`` | registration of the ops without prologue and residual |
| ``aot_variants.py`` | variants that the ahead-of-time gate compiles |
"""
