"""What dishonest homes try, through the code that meters, settles and keeps books; and honest ones on bad days."""
