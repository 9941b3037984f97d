"""What MT3's token modules lack: segment targets, shuffling, corruption, batched parsing."""
