"""How inputs come to a worker and outputs leave it: streamed, checked, resumed, in bounded memory."""
