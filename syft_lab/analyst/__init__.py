"""The analyst's side: connect, build questions on pointers, ask, and get results with receipts."""
