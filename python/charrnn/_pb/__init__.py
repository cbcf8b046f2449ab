"""Generated from ``proto/charrnn/v1/charrnn.proto`` by ``make proto``; nothing here is written by hand."""
