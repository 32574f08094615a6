UPDATE {errands} SET status = {status}, result = {result} WHERE id = {id}
