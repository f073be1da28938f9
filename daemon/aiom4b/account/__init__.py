"""The owner's Audible accounts: who is signed in, what they own, and how it gets here."""
