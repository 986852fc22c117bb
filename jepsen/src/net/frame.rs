//! Ethernet frames, as far as the switch looks into them.

const ETHERNET: usize = 14;
const IPV4: [u8; 2] = [0x08, 0x00];
const TCP: u8 = 6;
const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// Returns whom a frame is for.
pub(super) fn destination(frame: &[u8]) -> Option<[u8; 6]> {
    frame.get(..6)?.try_into().ok()
}

/// Returns what a closed port would answer to a frame: a reset of its TCP connection. `None` if it is not TCP, or a
/// reset itself.
pub(super) fn reset_for(frame: &[u8]) -> Option<Vec<u8>> {
    if frame.get(12..14)? != IPV4 {
        return None;
    }
    let ip = frame.get(ETHERNET..)?;
    let ip_head = usize::from(ip.first()? & 15) * 4;
    let ip_len = usize::from(u16::from_be_bytes(ip.get(2..4)?.try_into().ok()?));
    let tcp = ip.get(ip_head..ip_len)?;
    let flags = *tcp.get(13)?;
    if *ip.get(9)? != TCP || flags & RST != 0 {
        return None;
    }
    let payload = tcp.len().checked_sub(usize::from(tcp.get(12)? >> 4) * 4)?;
    let occupied = payload as u32 + u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
    let sequence = u32::from_be_bytes(tcp.get(4..8)?.try_into().ok()?);

    let mut answer = Vec::with_capacity(54);
    answer.extend_from_slice(frame.get(6..12)?);
    answer.extend_from_slice(frame.get(..6)?);
    answer.extend_from_slice(&IPV4);
    let mut head = [0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, TCP, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    head[12..16].copy_from_slice(ip.get(16..20)?);
    head[16..20].copy_from_slice(ip.get(12..16)?);
    let sum = checksum(&[&head]);
    head[10..12].copy_from_slice(&sum);
    answer.extend_from_slice(&head);

    let mut segment = [0u8; 20];
    segment[..2].copy_from_slice(tcp.get(2..4)?);
    segment[2..4].copy_from_slice(tcp.get(..2)?);
    if flags & ACK != 0 {
        segment[4..8].copy_from_slice(tcp.get(8..12)?);
    }
    segment[8..12].copy_from_slice(&sequence.wrapping_add(occupied).to_be_bytes());
    segment[12] = 5 << 4;
    segment[13] = RST | ACK;
    let sum = checksum(&[&head[12..20], &[0, TCP, 0, 20], &segment]);
    segment[16..18].copy_from_slice(&sum);
    answer.extend_from_slice(&segment);
    Some(answer)
}

/// The Internet checksum of parts of even length.
fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let words = parts.iter().flat_map(|part| part.as_chunks::<2>().0);
    let mut sum: u32 = words.map(|word| u32::from(u16::from_be_bytes(*word))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A SYN of 10.77.0.1:40000 to 10.77.0.2:80 with sequence number 7.
    fn syn() -> Vec<u8> {
        let mut frame = vec![2, 0, 10, 77, 0, 2, 2, 0, 10, 77, 0, 1, 8, 0];
        frame.extend([0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 77, 0, 1, 10, 77, 0, 2]);
        frame.extend([0x9c, 0x40, 0, 80, 0, 0, 0, 7, 0, 0, 0, 0, 0x50, SYN, 0xff, 0xff, 0, 0, 0, 0]);
        frame
    }

    #[test]
    fn a_syn_is_reset() {
        let answer = reset_for(&syn()).unwrap();
        assert_eq!(answer.len(), 54);
        assert_eq!(answer[..12], [2, 0, 10, 77, 0, 1, 2, 0, 10, 77, 0, 2]);
        assert_eq!(answer[34..38], [0, 80, 0x9c, 0x40]);
        assert_eq!(answer[42..46], 8u32.to_be_bytes(), "it acknowledges the SYN");
        assert_eq!(answer[47], RST | ACK);
        assert_eq!(checksum(&[&answer[14..34]]), [0, 0]);
        assert_eq!(checksum(&[&answer[26..34], &[0, TCP, 0, 20], &answer[34..]]), [0, 0]);
        assert_eq!(reset_for(&answer), None, "no answer to an answer");
    }

    #[test]
    fn what_is_cut_short_is_not_answered() {
        let frame = syn();
        for len in 0..frame.len() {
            assert_eq!(reset_for(&frame[..len]), None);
        }
    }
}
