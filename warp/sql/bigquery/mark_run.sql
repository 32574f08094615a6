UPDATE {group} SET run = {run}, run_slot = {slot} WHERE unit = {unit}
