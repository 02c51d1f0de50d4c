"""The Open Inference Protocol, version 2, over HTTP: raw fields as tensors in, one tensor of probabilities out.

Clients of KServe, Triton and MLServer speak it. One input tensor carries one raw field; the answer's one output is
`pctr`. Tensors travel as JSON, or as bytes after it (the binary tensor data extension). From bytes to bytes::

    document   the JSON part as typed structures            faults    where a document breaks its form
    tensors    one tensor's data as text or numbers         encode    tensors to id matrices
    answer     scores as an output tensor                   pipeline  the stages of one request, in order
    metadata   what servers and models say of themselves    errors    the protocol's own error form

Sources: the KServe project's "Open Inference Protocol, REST" and "Binary Tensor Data Extension".
"""
