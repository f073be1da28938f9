"""What do requests and answers look like? Names, what may be asked, and what is answered."""
