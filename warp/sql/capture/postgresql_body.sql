begin
    if tg_op = 'INSERT' then
        insert into {queue} ({keys}) select {values} from cartridge_warp_new as r;
    elsif tg_op = 'UPDATE' then
        insert into {queue} ({keys})
            select {values} from cartridge_warp_new as r
            union select {values} from cartridge_warp_old as r;
    elsif tg_op = 'DELETE' then
        insert into {queue} ({keys}) select {values} from cartridge_warp_old as r;
    else
        insert into {queue} (truncated) values (1);
    end if;
    return null;
end
