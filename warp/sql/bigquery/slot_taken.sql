SELECT 1 AS taken FROM {runs} WHERE unit = {unit} AND slot = {slot} AND status = 'done' LIMIT 1
