"""What all providers over HTTP share: the address, the key, the request, the reply and the stream."""
