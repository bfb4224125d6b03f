"""From text to rows of tokens: sources, chats, masks, packing, the order of rows."""
