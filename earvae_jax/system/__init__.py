"""What the operating system and the machine give: files, processes, caches, memory, known faults."""
