"""Networks and their recipe sections; no loss and no file."""
